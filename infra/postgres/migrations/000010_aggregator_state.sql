-- The aggregator's state is bytes. What an older aggregator wrote as text is of no use to this one: it folds the log again.
delete from aggregator_snapshots;
alter table aggregator_snapshots drop column state;
alter table aggregator_snapshots add column state bytea not null;

-- Where a device was enrolled, when a release may update its site as one.
alter table devices add column site text;
