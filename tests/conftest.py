"""The plugins that every test run loads; fixtures live in `tests/support/` or beside the tests that use them."""

pytest_plugins = ["one_line_skips", "postgres_server"]
