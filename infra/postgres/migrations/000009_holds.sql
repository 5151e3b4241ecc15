-- A HOLD is of one cell, and a release can have several: each is cleared by itself.
alter table judge_status add column holds jsonb not null default '[]';
update judge_status set holds = jsonb_build_array(jsonb_build_object('verdict', hold, 'clearedAt', null)) where hold is not null;
alter table judge_status alter column holds drop default;
alter table judge_status drop column hold;

alter table decisions add column cell text;
update decisions set cell = verdict ->> 'cell';
alter table decisions alter column cell set not null;
alter table decisions drop constraint decisions_pkey;
alter table decisions add primary key (release_id, kind, cell);
