-- Windows whose tick still lacks other partitions; removed when the tick is folded.
create table judge_pending (
  release_id text    not null,
  tick       integer not null,
  partition  integer not null,
  body       text    not null,
  primary key (release_id, tick, partition)
);

-- Place in the log of the poll that a device's row shows: an older one never replaces a newer one.
alter table devices add column last_offset bigint not null default -1;

create index decisions_to_notify on decisions (decided_at) where notified_at is null;
