-- SQLite is one shard: nobody moves, and there is nothing to note.
SELECT 1;
