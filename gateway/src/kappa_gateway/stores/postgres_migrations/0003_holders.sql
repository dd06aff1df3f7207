-- oldest code: 2
--
-- Gateways that hold leases, and which of them holds each: what a gateway had in hand that is gone is free seconds later. A holder is there while
-- its session has the advisory lock of its number; postgres_presence.py says when it counts as gone.
--
-- "held" is what "leases" was when the holder took the event: code that knows neither leases again without them, and its lease is not the holder's.

CREATE TABLE kappa.holders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session text NOT NULL
);

ALTER TABLE kappa.events ADD COLUMN holder integer, ADD COLUMN held integer;
