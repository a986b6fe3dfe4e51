"""The paper's benchmarks and the production example as tables: settings that ship, made into rows from a user's images."""
