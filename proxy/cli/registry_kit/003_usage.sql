-- Tiergate's tenant registry, version 3: what each process has counted of a day, of which tenant_metrics_daily is the sum.
--
-- A role that records usage needs, besides what versions 1 and 2 say:
--
--     GRANT SELECT, INSERT, UPDATE, DELETE ON tiergate_registry.usage_part, tiergate_registry.storage_day
--         TO the_proxys_role;

CREATE TABLE IF NOT EXISTS tiergate_registry.usage_part (
    tenant_id UUID NOT NULL REFERENCES public.tenant_registry(tenant_id) ON DELETE CASCADE,
    metric_date DATE NOT NULL,
    process UUID NOT NULL,
    queries BIGINT NOT NULL,
    seconds FLOAT NOT NULL,
    errors BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, metric_date, process)
);
CREATE INDEX IF NOT EXISTS idx_usage_part_date ON tiergate_registry.usage_part(metric_date);
REVOKE ALL ON tiergate_registry.usage_part FROM PUBLIC;

-- Days on which somebody has measured what is stored (`at` is infinity), or did so at that moment.
CREATE TABLE IF NOT EXISTS tiergate_registry.storage_day (
    metric_date DATE PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
REVOKE ALL ON tiergate_registry.storage_day FROM PUBLIC;

CREATE OR REPLACE FUNCTION tiergate_registry.version() RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 3';
