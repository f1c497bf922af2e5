-- Tiergate's tenant registry, version 1. For PostgreSQL 13 and newer, nothing else is needed.
--
-- `tiergate sql install --registry` runs this. By hand, in the registry's database:
--
--     psql -1 -v ON_ERROR_STOP=1 -f 001_registry.sql
--     psql -c "GRANT SELECT ON public.tenant_registry, public.tenant_users TO the_proxys_role"
--
-- It may be run again at any time, and on tables that were made by hand from the architecture document: what is
-- there stays, what is missing is added. The document's columns are never renamed.
--
-- Every change is told on the channel tiergate_registry when it commits, as JSON: the codes and the id that it
-- concerns, and a number that no other change has. {"all": true}: the whole table was emptied.

CREATE TABLE IF NOT EXISTS public.tenant_registry (
    tenant_id UUID PRIMARY KEY,
    tenant_code VARCHAR(50) UNIQUE NOT NULL,
    tenant_name VARCHAR(200) NOT NULL,
    tier VARCHAR(20) NOT NULL CHECK (tier IN ('enterprise', 'vip', 'standard', 'free')),

    -- where its data lives
    cluster_endpoint_type VARCHAR(20) NOT NULL,  -- 'dedicated', 'vip_pool', 'shared_pool'
    primary_endpoint VARCHAR(255),               -- enterprise primary
    replica_endpoints TEXT[],                    -- enterprise replicas
    shard_id INTEGER,                            -- vip / standard shard
    coordinator_endpoints TEXT[],                -- Citus coordinators

    -- connections
    max_connections INTEGER DEFAULT 10,
    min_connections INTEGER DEFAULT 1,
    cpu_quota_percentage FLOAT,                  -- 20 = 20 %
    memory_quota_gb FLOAT,

    -- limits
    max_qps INTEGER,
    max_storage_gb INTEGER,
    query_timeout_ms INTEGER DEFAULT 30000,

    -- state
    active BOOLEAN DEFAULT true,
    created_at TIMESTAMPTZ DEFAULT NOW(),
    updated_at TIMESTAMPTZ DEFAULT NOW(),
    expires_at TIMESTAMPTZ,

    -- audit
    created_by VARCHAR(100),
    updated_by VARCHAR(100)
);

-- A cluster of the proxy's configuration, [cluster.NAME]; it goes before the endpoints of the row.
ALTER TABLE public.tenant_registry ADD COLUMN IF NOT EXISTS cluster_name VARCHAR(63);
-- Grows with each change of the row.
ALTER TABLE public.tenant_registry ADD COLUMN IF NOT EXISTS version BIGINT NOT NULL DEFAULT 1;

CREATE INDEX IF NOT EXISTS idx_tenant_registry_active ON public.tenant_registry(active);
CREATE INDEX IF NOT EXISTS idx_tenant_registry_tier ON public.tenant_registry(tier);
CREATE INDEX IF NOT EXISTS idx_tenant_registry_shard ON public.tenant_registry(shard_id)
    WHERE shard_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS public.tenant_metrics_daily (
    tenant_id UUID NOT NULL,
    metric_date DATE NOT NULL,

    db_query_count BIGINT,
    db_avg_latency_ms FLOAT,
    db_errors BIGINT,

    storage_used_gb FLOAT,
    storage_growth_gb FLOAT,

    api_qps BIGINT,
    api_errors BIGINT,

    PRIMARY KEY (tenant_id, metric_date),
    FOREIGN KEY (tenant_id) REFERENCES public.tenant_registry(tenant_id)
);

CREATE INDEX IF NOT EXISTS idx_tenant_metrics_date ON public.tenant_metrics_daily(metric_date DESC);

-- Logins of one tenant each. No password is kept: what is stored proves one, and cannot be used as one.
CREATE TABLE IF NOT EXISTS public.tenant_users (
    tenant_id UUID NOT NULL REFERENCES public.tenant_registry(tenant_id) ON DELETE CASCADE,
    user_name VARCHAR(63) NOT NULL,
    verifier TEXT NOT NULL CHECK (verifier ~ '^SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+$'),
    valid_until TIMESTAMPTZ,
    locked BOOLEAN NOT NULL DEFAULT false,
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    PRIMARY KEY (tenant_id, user_name)
);
REVOKE ALL ON public.tenant_users FROM PUBLIC;

CREATE SCHEMA IF NOT EXISTS tiergate_registry;
REVOKE ALL ON SCHEMA tiergate_registry FROM PUBLIC;
GRANT USAGE ON SCHEMA tiergate_registry TO PUBLIC;
CREATE SEQUENCE IF NOT EXISTS tiergate_registry.change;

CREATE OR REPLACE FUNCTION tiergate_registry.version() RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';

CREATE OR REPLACE FUNCTION tiergate_registry.touch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := now();
    NEW.version := OLD.version + 1;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION tiergate_registry.tell() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[] := '{}';
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('tiergate_registry',
            json_build_object('all', true, 'change', nextval('tiergate_registry.change'))::text);
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        names := ARRAY[OLD.tenant_code, OLD.tenant_id::text];
    END IF;
    IF TG_OP <> 'DELETE' THEN
        names := names || ARRAY[NEW.tenant_code, NEW.tenant_id::text];
    END IF;
    PERFORM pg_notify('tiergate_registry', json_build_object(
        'names', (SELECT json_agg(DISTINCT n) FROM unnest(names) AS n),
        'change', nextval('tiergate_registry.change'))::text);
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tiergate_registry.touch() FROM PUBLIC;
REVOKE ALL ON FUNCTION tiergate_registry.tell() FROM PUBLIC;

DROP TRIGGER IF EXISTS tiergate_touch ON public.tenant_registry;
CREATE TRIGGER tiergate_touch BEFORE UPDATE ON public.tenant_registry
    FOR EACH ROW EXECUTE FUNCTION tiergate_registry.touch();
DROP TRIGGER IF EXISTS tiergate_tell ON public.tenant_registry;
CREATE TRIGGER tiergate_tell AFTER INSERT OR UPDATE OR DELETE ON public.tenant_registry
    FOR EACH ROW EXECUTE FUNCTION tiergate_registry.tell();
DROP TRIGGER IF EXISTS tiergate_tell_all ON public.tenant_registry;
CREATE TRIGGER tiergate_tell_all AFTER TRUNCATE ON public.tenant_registry
    FOR EACH STATEMENT EXECUTE FUNCTION tiergate_registry.tell();
