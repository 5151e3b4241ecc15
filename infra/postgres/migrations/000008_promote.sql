-- The evidence of a stage that its critical metrics got no worse. A status from before has none.
alter table judge_status add column promote jsonb not null default '{"cell": "", "value": 0, "limit": 20}';
alter table judge_status alter column promote drop default;
