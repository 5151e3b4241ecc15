-- An override lets pass what was wrong when it was asked for, and nothing else.
alter table waivers add column failures text[] not null default '{}';
