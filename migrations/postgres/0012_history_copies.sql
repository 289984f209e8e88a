-- The events of the conflicted copies that a node showed beside its own content before a change, 24 bytes each: replica, counter.
-- NULL where that was not kept yet; a rewind then leaves the copies that stand alone.
ALTER TABLE node_history ADD COLUMN copies BYTEA;
