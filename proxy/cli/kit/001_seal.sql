-- Tiergate's SQL kit, version 1: the sealed tenant context. For PostgreSQL 13 and newer, nothing else is needed.
--
-- What SQL can hide from a parser (a function's body, EXECUTE of a computed text) may set app.tenant_id to
-- whatever it likes. So a policy does not ask that parameter, but
--
--     CREATE POLICY own_rows ON orders
--         USING (tenant_id = (SELECT tiergate.current_tenant()))
--         WITH CHECK (tenant_id = (SELECT tiergate.current_tenant()));
--
-- which returns the tenant only if the parameter tiergate.seal proves that the proxy has named it: an
-- HMAC-SHA-256 over the tenant, this very backend and a time at which it expires. The SELECT around the call has
-- it evaluated once a statement, and lets an index on tenant_id be used.
--
-- `tiergate sql install` runs this and stores the keys. By hand, in each database, as a role that owns nothing of
-- the applications' and that they are no members of (a superuser, or one in pg_read_all_stats):
--
--     psql -1 -v ON_ERROR_STOP=1 -f 001_seal.sql
--     psql -c "SELECT tiergate.store_key('key-id', 'a secret of at least 32 characters')"
--
-- It may be run again at any time. Every name below is qualified or resolved under a search_path of the
-- function's own, and no text depends on a parameter that a client may set (backslashes, dates, floats, bytea).

DO $$
DECLARE
    me oid := (SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user);
BEGIN
    IF EXISTS (
        SELECT n.nspowner AS owner FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'tiergate' AND n.nspowner <> me
        UNION ALL
        SELECT p.proowner FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
            WHERE n.nspname = 'tiergate' AND p.proowner <> me
        UNION ALL
        SELECT c.relowner FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = 'tiergate' AND c.relowner <> me
    ) THEN
        RAISE EXCEPTION 'schema tiergate, or something in it, belongs to another role, which could replace it'
            USING HINT = 'Run this as the owner of the schema, or drop the schema.';
    END IF;
END $$;

CREATE SCHEMA IF NOT EXISTS tiergate;
REVOKE ALL ON SCHEMA tiergate FROM PUBLIC;
GRANT USAGE ON SCHEMA tiergate TO PUBLIC;

CREATE OR REPLACE FUNCTION tiergate.version() RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';
GRANT EXECUTE ON FUNCTION tiergate.version() TO PUBLIC;

-- The parameter that names the tenant ([proxy] tenant_guc), kept as a function that is inlined: a table would be
-- read once a statement.
CREATE OR REPLACE FUNCTION tiergate.set_tenant_guc(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION tiergate.tenant_guc() RETURNS text'
                   ' LANGUAGE sql STABLE PARALLEL SAFE AS %L', format('SELECT %L::text', name));
    GRANT EXECUTE ON FUNCTION tiergate.tenant_guc() TO PUBLIC;
END $$;
REVOKE ALL ON FUNCTION tiergate.set_tenant_guc(text) FROM PUBLIC;
DO $$
BEGIN
    IF to_regprocedure('tiergate.tenant_guc()') IS NULL THEN
        PERFORM tiergate.set_tenant_guc('app.tenant_id');
    END IF;
END $$;

-- Of each key the two blocks that an HMAC begins with (RFC 2104), so that sha256() is all that is needed later.
CREATE TABLE IF NOT EXISTS tiergate.seal_key (
    id         text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,32}$'),
    inner_pad  bytea NOT NULL CHECK (octet_length(inner_pad) = 64),
    outer_pad  bytea NOT NULL CHECK (octet_length(outer_pad) = 64),
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz
);
REVOKE ALL ON tiergate.seal_key FROM PUBLIC;

-- Adds a key, or takes back that it has been retired. A known id with another secret is an error.
CREATE OR REPLACE FUNCTION tiergate.store_key(id text, secret text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key      bytea := convert_to(secret, 'UTF8');
    block_36 bytea := decode(repeat('36', 64), 'hex');
    block_5c bytea := decode(repeat('5c', 64), 'hex');
BEGIN
    IF octet_length(key) < 32 THEN
        RAISE EXCEPTION 'a key needs a secret of at least 32 characters';
    END IF;
    IF octet_length(key) > 64 THEN
        key := sha256(key);
    END IF;
    FOR i IN 0 .. octet_length(key) - 1 LOOP
        block_36 := set_byte(block_36, i, get_byte(block_36, i) # get_byte(key, i));
        block_5c := set_byte(block_5c, i, get_byte(block_5c, i) # get_byte(key, i));
    END LOOP;
    INSERT INTO tiergate.seal_key AS known (id, inner_pad, outer_pad)
        VALUES (store_key.id, block_36, block_5c)
        ON CONFLICT ON CONSTRAINT seal_key_pkey DO UPDATE SET retired_at = NULL
            WHERE known.inner_pad = excluded.inner_pad AND known.outer_pad = excluded.outer_pad;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is a key % with another secret', store_key.id;
    END IF;
END $$;
REVOKE ALL ON FUNCTION tiergate.store_key(text, text) FROM PUBLIC;

-- What no other connection has, now or until a seal expires: the process, the client's end of its socket, the
-- server's own start. A unix socket has no port; there the backend's start takes its place.
CREATE OR REPLACE FUNCTION tiergate.backend() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF inet_client_port() IS NOT NULL THEN
        RETURN concat_ws('/', pg_backend_pid()::text,
            to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS'),
            host(inet_client_addr()), inet_client_port()::text);
    END IF;
    RETURN concat_ws('/', pg_backend_pid()::text, (
        SELECT to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')
        FROM pg_stat_get_activity(pg_backend_pid()) AS a));
END $$;
GRANT EXECUTE ON FUNCTION tiergate.backend() TO PUBLIC;

-- What the proxy asks once on each new connection: the version of the seals that are understood here, the time
-- in seconds, and who the backend is. Thus no clock but this server's decides when a seal expires.
CREATE OR REPLACE FUNCTION tiergate.introduce() RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN '1 ' || extract(epoch FROM clock_timestamp())::bigint::text || ' ' || tiergate.backend();
END $$;
GRANT EXECUTE ON FUNCTION tiergate.introduce() TO PUBLIC;

-- The tenant for which the proxy has set this connection up. NULL where nobody claims to be any.
--
-- A claim that is not proved is an error (42501) and a line in the server's log, not just no rows: rows that are
-- silently missing would be taken for an empty table by an honest application whose seal has been lost, and what
-- catches the error in a block of PL/pgSQL still leaves the line.
--
-- A seal has expired when both the transaction and its present statement began after the time in it: what has
-- begun in time keeps its rows to its end, however long it takes (also a procedure that commits in between).
--
-- PARALLEL RESTRICTED, since a parallel worker is another process; the leader evaluates it and hands the
-- tenant on to its workers.
CREATE OR REPLACE FUNCTION tiergate.current_tenant() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := coalesce(current_setting(tiergate.tenant_guc(), true), '');
    seal   text := coalesce(current_setting('tiergate.seal', true), '');
    part   text[] := string_to_array(seal, '.');  -- version, key, expiry in seconds, HMAC
    key    record;
    hmac   bytea;
    began  timestamptz := least(transaction_timestamp(), statement_timestamp());
    reason text;
BEGIN
    IF seal = '' AND tenant = '' THEN
        RETURN NULL;
    END IF;
    SELECT k.id, k.inner_pad, k.outer_pad, k.retired_at INTO key FROM tiergate.seal_key AS k WHERE k.id = part[2];
    IF seal = '' THEN
        reason := 'there is no seal';
    ELSIF cardinality(part) <> 4 OR part[1] <> '1'
            OR length(part[3]) NOT BETWEEN 1 AND 12 OR translate(part[3], '0123456789', '') <> ''
            OR length(part[4]) <> 64 OR translate(part[4], '0123456789abcdef', '') <> '' THEN
        reason := 'the seal is malformed';
    ELSIF key.id IS NULL THEN
        reason := 'the key of the seal is unknown';
    ELSE
        hmac := sha256(key.outer_pad || sha256(key.inner_pad || convert_to(
            concat_ws(chr(10), 'tiergate seal 1', part[2], part[3], tiergate.backend(), tenant), 'UTF8')));
        -- Hashed with the secret once more, so that how long the comparison takes tells nothing of the HMAC.
        IF sha256(key.outer_pad || hmac) <> sha256(key.outer_pad || decode(part[4], 'hex')) THEN
            reason := 'the seal is not of this tenant and connection';
        ELSIF began > to_timestamp(part[3]::float8) THEN
            reason := 'the seal has expired';
        ELSIF began >= key.retired_at THEN
            reason := 'the key of the seal has been retired';
        ELSE
            RETURN tenant;
        END IF;
    END IF;
    RAISE LOG 'tiergate: tenant context refused: % (tenant %, key %, role %)', reason,
        quote_literal(left(tenant, 64)), quote_literal(left(coalesce(part[2], ''), 32)), session_user;
    RAISE EXCEPTION 'tenant context refused' USING ERRCODE = 'insufficient_privilege', DETAIL = reason;
END $$;
GRANT EXECUTE ON FUNCTION tiergate.current_tenant() TO PUBLIC;
