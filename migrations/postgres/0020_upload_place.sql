-- The directory that an upload's path is below, where its caller may see no more than that directory: so that the upload outlives a rename or a move of it.
-- NULL where the path is below the namespace's root.
ALTER TABLE uploads ADD COLUMN below_id BYTEA;
