-- oldest code: 1
--
-- Archives by their SHA-256, cut into rows of 1 MiB. Not large objects: those are rows of 2 KiB in a system catalog, with privileges, dumps and
-- orphans of their own, and a connection pooler in between breaks them. Rows of a megabyte go over the wire one by one, so that neither side
-- ever holds an archive in memory, and they appear and disappear with the row that names them.

CREATE TABLE kappa.blobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256 text COLLATE "C" NOT NULL UNIQUE,
    size bigint NOT NULL,
    stored_ms bigint NOT NULL
);

CREATE TABLE kappa.blob_parts (
    blob bigint NOT NULL REFERENCES kappa.blobs ON DELETE CASCADE,
    number integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (blob, number)
);
-- Archives are compressed already.
ALTER TABLE kappa.blob_parts ALTER COLUMN data SET STORAGE EXTERNAL;
