-- Where a consumer goes on, committed together with what it made of the records before.
create table consumer_watermarks (
  consumer    text    not null,
  topic       text    not null,
  partition   integer not null,
  next_offset bigint  not null,
  primary key (consumer, topic, partition)
);

-- The aggregator's state of one partition after all records below next_offset.
create table aggregator_snapshots (
  topic       text    not null,
  partition   integer not null,
  next_offset bigint  not null,
  state       text    not null,
  written_at  timestamptz not null default now(),
  primary key (topic, partition)
);

-- Devices as they last described themselves in a poll.
create table devices (
  device_id              text primary key,
  engine_name            text not null,
  engine_version         text not null,
  engine_package_version text not null,
  engine_digest          text not null,
  fail_mode              text not null check (fail_mode in ('fail-open', 'fail-closed')),
  content_version        integer not null,
  changed_at             timestamptz not null default now()
);

-- The judge's summary of a release after its last complete tick: what stages and the lease are decided on.
create table judge_status (
  release_id            text primary key,
  last_tick             integer not null,
  last_window_closed_at bigint not null, -- end of the last tick by the broker's clock, ms
  stage                 integer not null,
  stat_a                double precision not null,
  stat_b                double precision not null,
  leading_cell          text not null,
  counts                jsonb not null,
  exposed               jsonb not null,
  open_trials           jsonb not null,
  first_harm_at         bigint,
  hold                  jsonb,
  halt                  jsonb
);

-- The judge's statistics and the windows that still wait for their tick to be complete.
create table judge_states (
  release_id text primary key,
  state      text not null
);

-- One row per tick: what was folded and what came out.
create table evidence (
  release_id text    not null,
  tick       integer not null,
  stage      integer not null,
  leaves     jsonb   not null,
  counts     jsonb   not null,
  exposed    jsonb   not null,
  open_trials jsonb  not null,
  offsets    jsonb   not null,
  stat_a     double precision not null,
  stat_b     double precision not null,
  leading_cell text    not null,
  primary key (release_id, tick)
);

-- HOLD and HALT with everything needed to compute them again; notified_at: whoever acts on it has taken it.
create table decisions (
  release_id  text not null,
  kind        text not null check (kind in ('hold', 'halt')),
  tick        integer not null,
  verdict     jsonb not null,
  decided_at  timestamptz not null default now(),
  notified_at timestamptz,
  primary key (release_id, kind)
);
