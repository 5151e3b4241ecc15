-- Exclusions and overrides: proposed by one person, in force with the second.
create table waivers (
  waiver_id text primary key,
  family text not null,
  kind text not null check (kind in ('exclude', 'override')),
  target text not null,
  source_digest text,
  reason text not null,
  expires_at timestamptz not null,
  decided_by text[] not null,
  changed_at timestamptz not null default now()
);
create index waivers_by_family on waivers (family, kind);
