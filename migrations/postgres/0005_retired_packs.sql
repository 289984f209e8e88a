-- When the last chunks of a mostly dead pack were copied into another one. Its blob stays for the grace period: somebody may be reading it.
ALTER TABLE packs ADD COLUMN retired_at BIGINT;
