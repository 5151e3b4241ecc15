-- Until when each of the people who decided asked for it, of which the earlier end counts; and who took it back.
alter table waivers
  add column asked_until timestamptz[] not null default '{}',
  add column withdrawn_at timestamptz,
  add column withdrawn_by text,
  add column withdrawn_reason text;
-- Of those that were decided before only the end that counts is known.
update waivers set asked_until = array_fill(expires_at, array[cardinality(decided_by)]);
