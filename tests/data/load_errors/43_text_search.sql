-- full text search with a configuration of one's own, named in a function without its schema
-- people who search in their language without accents
-- expect: whole
create extension unaccent;
create text search configuration fi (copy = finnish);
alter text search configuration fi alter mapping for hword, hword_part, word with unaccent, finnish_stem;
create function words(t text) returns tsvector language sql immutable as $$ select to_tsvector('fi', t) $$;
create table page (id int primary key, title text, body text, v tsvector generated always as (words(title || ' ' || body)) stored,
  plain tsvector generated always as (to_tsvector('public.fi', body)) stored);
insert into page (id, title, body) values (1, 'Talo', 'Iso talo metsässä'), (2, 'Vene', 'Vene järvellä');
create index page_v on page using gin (v);
create index page_words on page using gin (words(body));
