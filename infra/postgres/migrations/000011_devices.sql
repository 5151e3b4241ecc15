-- Devices whose reports are refused on a person's word. What was restored stays as a record.
create table device_revocations (
  revocation_id bigint generated always as identity primary key,
  device_id text not null,
  reason text not null,
  revoked_by text not null,
  revoked_at timestamptz not null default now(),
  restored_reason text,
  restored_by text,
  restored_at timestamptz
);
create unique index device_revocations_in_force on device_revocations (device_id) where restored_at is null;

-- The last offer of rolling content that a device was told it may take, whichever gateway it asked.
create table acknowledgements (
  device_id text primary key,
  sequence bigint not null,
  until_ms bigint not null
);
