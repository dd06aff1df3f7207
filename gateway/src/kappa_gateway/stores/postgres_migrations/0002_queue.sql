-- oldest code: 2
--
-- The EventQueue. An event is one row from its enqueue to its acknowledgement; a dead letter is the same row with killed_ms set, which takes
-- it out of the partial indexes that leases read. What is longer than 2 KiB PostgreSQL keeps beside the row (TOAST), so that leases,
-- extensions and retries do not rewrite it; EXTERNAL spares the attempt to compress it.

CREATE TABLE kappa.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    enqueued_ms bigint NOT NULL,
    due_ms bigint NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    killed_ms bigint,
    leases integer NOT NULL DEFAULT 0,
    size integer NOT NULL,
    function_uid text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    arn text NOT NULL,
    trace_id text NOT NULL,
    reason text NOT NULL DEFAULT '',
    detail text NOT NULL DEFAULT '',
    note bytea NOT NULL DEFAULT '',
    payload bytea NOT NULL
);
ALTER TABLE kappa.events ALTER COLUMN payload SET STORAGE EXTERNAL, ALTER COLUMN note SET STORAGE EXTERNAL;

CREATE INDEX events_due ON kappa.events (function_uid, due_ms, id) WHERE killed_ms IS NULL;
-- Age of the oldest, and purges. It also finds the end of a long queue without a sort.
CREATE INDEX events_arrival ON kappa.events (function_uid, id) WHERE killed_ms IS NULL;
-- Of dead letters only: an index over the random ids of all events would cost every enqueue a page of its own.
CREATE INDEX events_dead ON kappa.events (function_uid, killed_ms, id) WHERE killed_ms IS NOT NULL;
CREATE INDEX events_dead_ids ON kappa.events (event_id) WHERE killed_ms IS NOT NULL;

-- Every event is inserted, updated once or more and deleted within seconds, so dead rows are the rule and not the exception. Vacuum comes
-- after ten thousand of them whatever the size of the table, and does not pause. How often it looks is the server's autovacuum_naptime;
-- 10s is better than the default of a minute. A transaction that stays open for long (a dump, a forgotten psql) keeps all of them.
ALTER TABLE kappa.events SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 1000000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000, toast.autovacuum_vacuum_cost_delay = 0
);

-- Time for a statement: the caller's own, or this server's, in epoch milliseconds.
CREATE FUNCTION kappa.now_ms(given bigint) RETURNS bigint LANGUAGE sql
    AS $$ SELECT coalesce(given, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) $$;

-- Only rises, also across crashes and gateways: leases are fenced with it.
CREATE SEQUENCE kappa.epochs;

-- What belongs to each function, so that neither back-pressure nor metrics count rows.
CREATE TABLE kappa.functions (
    uid text COLLATE "C" PRIMARY KEY,
    arn text NOT NULL,
    depth bigint NOT NULL,
    bytes bigint NOT NULL,
    dead bigint NOT NULL,
    done bigint NOT NULL,
    killed bigint NOT NULL,
    touched_ms bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- What changed since that was written. Every batch of every gateway adds a row for each function it touched, instead of queueing for the
-- lock of one row until the other's commit; once a second they are added up.
CREATE TABLE kappa.tallies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    function_uid text COLLATE "C" NOT NULL,
    arn text NOT NULL DEFAULT '',
    depth bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    dead bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    killed bigint NOT NULL DEFAULT 0,
    touched_ms bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE VIEW kappa.books AS
    SELECT uid, arn, depth, bytes, dead, done, killed FROM kappa.functions
    UNION ALL SELECT function_uid, arn, depth, bytes, dead, done, killed FROM kappa.tallies;

CREATE TABLE kappa.dedupe (
    function_uid text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    event_id text NOT NULL,
    until_ms bigint NOT NULL,
    PRIMARY KEY (function_uid, key)
);
