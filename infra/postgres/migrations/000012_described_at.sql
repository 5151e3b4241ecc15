-- What a device said last, by append time: a device that comes to another site comes to another partition, whose offsets are others.
alter table devices add column described_at bigint not null default -1;
update devices set described_at = 0 where last_offset >= 0;
alter table devices drop column last_offset;
