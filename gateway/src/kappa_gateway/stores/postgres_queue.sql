-- The statements of PostgreSQL's EventQueue; postgres_queue_rows.py says what each is for and gives them their parameters.
--
-- Where a statement needs the time, $1 is the caller's own in epoch milliseconds, or NULL for the database's: gateways' clocks differ, and a lease
-- must end for all of them at once. Rows are locked in the order of their ids, so that two batches never wait for each other; leases skip what
-- others hold. What changes and the tally of it are one statement, and thereby there together or not at all.

-- :name enqueue
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
stored AS (
    INSERT INTO kappa.events (event_id, function_uid, arn, trace_id, size, enqueued_ms, due_ms, payload)
    SELECT a.event_id, a.function_uid, a.arn, a.trace_id, a.size, c.now, c.now + a.delay_ms, a.payload
    FROM clock c, unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::bigint[], $8::bytea[])
        WITH ORDINALITY AS a (event_id, function_uid, arn, trace_id, size, delay_ms, payload, place)
    ORDER BY a.place
)
INSERT INTO kappa.tallies (function_uid, arn, depth, bytes, touched_ms)
SELECT t.uid, t.arn, t.depth, t.bytes, c.now
FROM clock c, unnest($9::text[], $10::text[], $11::bigint[], $12::bigint[]) AS t (uid, arn, depth, bytes);

-- :name claim_keys
-- A key that another event has and that is still remembered stays that event's.
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now)
INSERT INTO kappa.dedupe (function_uid, key, event_id, until_ms)
SELECT k.uid, k.key, k.event_id, c.now + $5::bigint
FROM clock c, unnest($2::text[], $3::text[], $4::text[]) AS k (uid, key, event_id)
ORDER BY k.uid, k.key
ON CONFLICT (function_uid, key) DO UPDATE SET event_id = excluded.event_id, until_ms = excluded.until_ms
    WHERE kappa.dedupe.until_ms <= (SELECT now FROM clock);

-- :name holders_of_keys
SELECT d.function_uid, d.key, d.event_id
FROM unnest($1::text[], $2::text[]) AS k (uid, key) JOIN kappa.dedupe d ON d.function_uid = k.uid AND d.key = k.key;

-- :name lease
-- $2 the function that the last lease ended with, $3 the share, $4 and $5 the rooms, $6 the limit, $7 for how long, $8 the holder or NULL.
-- The first two parts step from function to function through the index, so that what they cost is their number and not that of their events;
-- they go only as far as the limit needs. How many of each function are due is counted without a lock, and only so many are locked: the
-- next ones, where another gateway has the first. The last row answers for those that found nothing: how many functions have something due,
-- and when the next event becomes due where none has.
WITH RECURSIVE behind AS (
    (SELECT function_uid, due_ms FROM kappa.events WHERE killed_ms IS NULL AND function_uid > $2
     ORDER BY function_uid, due_ms LIMIT 1)
    UNION ALL
    SELECT n.function_uid, n.due_ms FROM behind b CROSS JOIN LATERAL (
        SELECT e.function_uid, e.due_ms FROM kappa.events e WHERE e.killed_ms IS NULL AND e.function_uid > b.function_uid
        ORDER BY e.function_uid, e.due_ms LIMIT 1) n
),
before AS (
    (SELECT function_uid, due_ms FROM kappa.events WHERE killed_ms IS NULL AND function_uid <= $2
     ORDER BY function_uid, due_ms LIMIT 1)
    UNION ALL
    SELECT n.function_uid, n.due_ms FROM before b CROSS JOIN LATERAL (
        SELECT e.function_uid, e.due_ms FROM kappa.events e
        WHERE e.killed_ms IS NULL AND e.function_uid > b.function_uid AND e.function_uid <= $2
        ORDER BY e.function_uid, e.due_ms LIMIT 1) n
),
clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
heads AS (
    SELECT s.function_uid AS uid, s.due_ms, least(coalesce(r.room, $3::integer), $6::integer) AS room
    FROM (SELECT function_uid, due_ms FROM behind UNION ALL SELECT function_uid, due_ms FROM before) s
    LEFT JOIN unnest($4::text[], $5::integer[]) AS r (uid, room) ON r.uid = s.function_uid
    WHERE coalesce(r.room, $3::integer) > 0
),
sources AS MATERIALIZED (
    SELECT uid, room, row_number() OVER () AS place
    FROM (SELECT uid, room FROM heads WHERE due_ms <= (SELECT now FROM clock) LIMIT $6::integer) h
),
quotas AS MATERIALIZED (
    SELECT d.uid, d.place, count(*) AS due
    FROM (
        SELECT s.uid, s.place FROM sources s CROSS JOIN LATERAL (
            SELECT row_number() OVER () AS round FROM (
                SELECT FROM kappa.events e
                WHERE e.killed_ms IS NULL AND e.function_uid = s.uid AND e.due_ms <= (SELECT now FROM clock)
                ORDER BY e.due_ms, e.id LIMIT s.room) f) r
        ORDER BY r.round, s.place LIMIT $6::integer) d
    GROUP BY d.uid, d.place
),
chosen AS MATERIALIZED (
    SELECT q.place, f.id, f.due_ms FROM quotas q CROSS JOIN LATERAL (
        SELECT e.id, e.due_ms FROM kappa.events e
        WHERE e.killed_ms IS NULL AND e.function_uid = q.uid AND e.due_ms <= (SELECT now FROM clock)
        ORDER BY e.due_ms, e.id LIMIT q.due FOR UPDATE SKIP LOCKED) f
),
leased AS (
    UPDATE kappa.events e
    SET due_ms = (SELECT now FROM clock) + $7::bigint, epoch = nextval('kappa.epochs'), leases = e.leases + 1,
        holder = $8::integer, held = e.leases + 1
    FROM chosen c WHERE e.id = c.id
    RETURNING c.place, c.due_ms, e.id, e.epoch, e.leases, e.enqueued_ms, e.event_id, e.function_uid, e.arn, e.trace_id, e.note, e.payload
)
SELECT leased.*, NULL::bigint AS now FROM leased
UNION ALL
SELECT (SELECT count(*) FROM sources),
    CASE WHEN NOT EXISTS (SELECT FROM sources) THEN (SELECT min(due_ms) FROM heads) END,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, now FROM clock;

-- :name say
-- $2 and $3 the leases, $4 in how long they are due, $5 notes or NULL, $6 whether the lease goes on.
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
held AS MATERIALIZED (
    SELECT e.id, s.place FROM kappa.events e
    JOIN unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS s (id, epoch, place) ON s.id = e.id AND s.epoch = e.epoch
    WHERE e.killed_ms IS NULL ORDER BY e.id FOR UPDATE OF e
)
UPDATE kappa.events e SET
    due_ms = (SELECT now FROM clock) + ($4::bigint[])[h.place],
    note = coalesce(($5::bytea[])[h.place], e.note),
    epoch = CASE WHEN ($6::boolean[])[h.place] THEN e.epoch ELSE 0 END
FROM held h WHERE e.id = h.id
RETURNING h.place;

-- :name ack
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
held AS MATERIALIZED (
    SELECT e.id, s.place FROM kappa.events e
    JOIN unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS s (id, epoch, place) ON s.id = e.id AND s.epoch = e.epoch
    WHERE e.killed_ms IS NULL ORDER BY e.id FOR UPDATE OF e
),
gone AS (
    DELETE FROM kappa.events e USING held h WHERE e.id = h.id RETURNING h.place, e.function_uid, e.size
),
told AS (
    INSERT INTO kappa.tallies (function_uid, depth, bytes, done, touched_ms)
    SELECT function_uid, -count(*), -sum(size), count(*), (SELECT now FROM clock) FROM gone GROUP BY function_uid
)
SELECT place FROM gone;

-- :name kill
-- $2 and $3 the leases, $4 reasons, $5 details.
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
held AS MATERIALIZED (
    SELECT e.id, s.place FROM kappa.events e
    JOIN unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS s (id, epoch, place) ON s.id = e.id AND s.epoch = e.epoch
    WHERE e.killed_ms IS NULL ORDER BY e.id FOR UPDATE OF e
),
killed AS (
    UPDATE kappa.events e SET
        killed_ms = (SELECT now FROM clock), epoch = 0, reason = ($4::text[])[h.place], detail = ($5::text[])[h.place]
    FROM held h WHERE e.id = h.id
    RETURNING h.place, e.function_uid, e.size
),
told AS (
    INSERT INTO kappa.tallies (function_uid, depth, bytes, dead, killed, touched_ms)
    SELECT function_uid, -count(*), -sum(size), count(*), count(*), (SELECT now FROM clock) FROM killed GROUP BY function_uid
)
SELECT place FROM killed;

-- :name find_dead
SELECT * FROM kappa.events WHERE event_id = $1 AND killed_ms IS NOT NULL;

-- :name find_waiting
-- Looks at every row: only people ask.
SELECT * FROM kappa.events WHERE event_id = $1 AND killed_ms IS NULL;

-- :name dead_letters
SELECT * FROM kappa.events
WHERE function_uid = $1 AND killed_ms IS NOT NULL AND (killed_ms, id) > ($2, $3)
ORDER BY killed_ms, id LIMIT $4;

-- :name redrive
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
chosen AS MATERIALIZED (
    SELECT id FROM kappa.events WHERE function_uid = $2 AND killed_ms IS NOT NULL AND ($3 = '' OR event_id = $3)
    ORDER BY killed_ms, id LIMIT $4 FOR UPDATE
),
alive AS (
    UPDATE kappa.events e SET
        killed_ms = NULL, reason = '', detail = '', note = '', leases = 0, epoch = 0, enqueued_ms = t.now, due_ms = t.now,
        holder = NULL, held = NULL
    FROM chosen c, clock t WHERE e.id = c.id
    RETURNING e.size
),
told AS (
    INSERT INTO kappa.tallies (function_uid, depth, bytes, dead, touched_ms)
    SELECT $2, count(*), sum(size), -count(*), (SELECT now FROM clock) FROM alive HAVING count(*) > 0
)
SELECT count(*) FROM alive;

-- :name purge_waiting
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
chosen AS MATERIALIZED (
    SELECT id FROM kappa.events WHERE function_uid = $2 AND killed_ms IS NULL AND ($3 = '' OR event_id = $3)
    ORDER BY id LIMIT $4 FOR UPDATE
),
gone AS (
    DELETE FROM kappa.events e USING chosen c WHERE e.id = c.id RETURNING e.size
),
told AS (
    INSERT INTO kappa.tallies (function_uid, depth, bytes, touched_ms)
    SELECT $2, -count(*), -sum(size), (SELECT now FROM clock) FROM gone HAVING count(*) > 0
)
SELECT count(*) FROM gone;

-- :name purge_dead
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
chosen AS MATERIALIZED (
    SELECT id FROM kappa.events WHERE function_uid = $2 AND killed_ms IS NOT NULL AND ($3 = '' OR event_id = $3)
    ORDER BY killed_ms, id LIMIT $4 FOR UPDATE
),
gone AS (
    DELETE FROM kappa.events e USING chosen c WHERE e.id = c.id RETURNING e.id
),
told AS (
    INSERT INTO kappa.tallies (function_uid, dead, touched_ms)
    SELECT $2, -count(*), (SELECT now FROM clock) FROM gone HAVING count(*) > 0
)
SELECT count(*) FROM gone;

-- :name expire
-- Does not touch the function: it is forgotten once nothing of it has happened for as long.
WITH chosen AS MATERIALIZED (
    SELECT id FROM kappa.events WHERE killed_ms IS NOT NULL AND killed_ms < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM kappa.events e USING chosen c WHERE e.id = c.id RETURNING e.function_uid
),
told AS (
    INSERT INTO kappa.tallies (function_uid, dead, touched_ms) SELECT function_uid, -count(*), 0 FROM gone GROUP BY function_uid
)
SELECT count(*) FROM gone;

-- :name forget_functions
DELETE FROM kappa.functions WHERE depth = 0 AND dead = 0 AND touched_ms < $1;

-- :name forget_keys
DELETE FROM kappa.dedupe WHERE until_ms <= (SELECT kappa.now_ms($1));

-- :name add_up
-- Whoever comes while another is at it leaves it to that one.
WITH gone AS (
    DELETE FROM kappa.tallies
    WHERE (SELECT pg_try_advisory_xact_lock('kappa.tallies'::regclass::oid::bigint)) RETURNING *
)
INSERT INTO kappa.functions AS f
SELECT function_uid, max(arn), sum(depth), sum(bytes), sum(dead), sum(done), sum(killed), max(touched_ms)
FROM gone GROUP BY function_uid ORDER BY function_uid
ON CONFLICT (uid) DO UPDATE SET
    depth = f.depth + excluded.depth, bytes = f.bytes + excluded.bytes, dead = f.dead + excluded.dead,
    done = f.done + excluded.done, killed = f.killed + excluded.killed, touched_ms = greatest(f.touched_ms, excluded.touched_ms);

-- :name held_bytes
SELECT uid, sum(bytes)::bigint AS bytes FROM kappa.books GROUP BY uid HAVING sum(bytes) <> 0;

-- :name stats
SELECT b.*, (
    SELECT e.enqueued_ms FROM kappa.events e WHERE e.function_uid = b.uid AND e.killed_ms IS NULL ORDER BY e.id LIMIT 1) AS oldest_ms
FROM (
    SELECT uid, max(arn) AS arn, sum(depth)::bigint AS depth, sum(bytes)::bigint AS bytes, sum(dead)::bigint AS dead,
        sum(done)::bigint AS done, sum(killed)::bigint AS killed
    FROM kappa.books GROUP BY uid) b
ORDER BY uid;

-- :name new_holder
-- Number and lock in one statement: nobody ever sees a number of a living gateway whose lock is free.
WITH new AS (INSERT INTO kappa.holders (session) VALUES ($1) RETURNING id)
SELECT id, pg_try_advisory_lock('kappa.holders'::regclass::oid::integer, id) AS locked FROM new;

-- :name same_holder
-- Others may have thought that it is gone, and deleted it.
WITH again AS (
    INSERT INTO kappa.holders (id, session) OVERRIDING SYSTEM VALUE VALUES ($2, $1) ON CONFLICT (id) DO NOTHING
)
SELECT $2::integer AS id, pg_try_advisory_lock('kappa.holders'::regclass::oid::integer, $2) AS locked;

-- :name free_holders
-- Those whose lock nobody has. Of a lock of two numbers, pg_locks has them as classid and objid.
SELECT h.id FROM kappa.holders h
WHERE NOT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.classid = 'kappa.holders'::regclass::oid AND l.objid = h.id::oid AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()));

-- :name end_leases
-- $2 the holder, $3 how long a lease is at most: only what is due within that is looked at, function by function. With the lock in hand the
-- holder cannot come back in the middle of it; if it is back already, nothing happens.
WITH clock AS MATERIALIZED (SELECT kappa.now_ms($1) AS now),
gone AS (
    DELETE FROM kappa.holders h
    WHERE h.id = $2 AND pg_try_advisory_xact_lock('kappa.holders'::regclass::oid::integer, $2) RETURNING h.id
),
leased AS MATERIALIZED (
    SELECT e.id FROM gone, (SELECT DISTINCT uid FROM kappa.books) b CROSS JOIN LATERAL (
        SELECT e.id FROM kappa.events e
        WHERE e.killed_ms IS NULL AND e.function_uid = b.uid AND e.due_ms > (SELECT now FROM clock)
            AND e.due_ms <= (SELECT now FROM clock) + $3::bigint
            AND e.epoch <> 0 AND e.holder = $2 AND e.held = e.leases) e
),
locked AS MATERIALIZED (
    SELECT e.id FROM kappa.events e JOIN leased l ON l.id = e.id
    WHERE e.epoch <> 0 AND e.holder = $2 AND e.held = e.leases AND e.killed_ms IS NULL
    ORDER BY e.id FOR UPDATE OF e
)
UPDATE kappa.events e SET due_ms = (SELECT now FROM clock), epoch = 0, holder = NULL, held = NULL FROM locked l WHERE e.id = l.id
RETURNING e.function_uid;

-- :name leave
DELETE FROM kappa.holders WHERE id = $1;
