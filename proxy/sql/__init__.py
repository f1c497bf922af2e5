"""SQL texts to verdicts: what a statement leaves behind in its session. The only home of pglast."""
