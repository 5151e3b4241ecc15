-- Releases as their events say: the projector's fold of release.events.v1, for lists and views.
create table releases (
  release_id text primary key,
  family     text not null,
  phase      text not null,
  seq        integer not null,
  started_at timestamptz not null,
  changed_at timestamptz not null,
  state      jsonb not null,
  head_hash  text not null
);
create index releases_by_family on releases (family, started_at desc);

-- The events folded so far, by their place in the log: tells a repetition from a fork.
create table release_events (
  release_id  text    not null,
  seq         integer not null,
  type        text    not null,
  occurred_at timestamptz not null,
  hash        text    not null,
  partition   integer not null,
  log_offset  bigint  not null,
  primary key (release_id, seq)
);

-- What in the log is no part of its stream (undecodable, changed, forked, out of order): kept, shown, never folded.
create table quarantined_events (
  partition  integer not null,
  log_offset bigint  not null,
  release_id text    not null,
  seq        integer,
  kind       text    not null,
  words      text    not null,
  found_at   timestamptz not null default now(),
  primary key (partition, log_offset)
);
