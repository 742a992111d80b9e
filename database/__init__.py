"""The database: migrations, procedures, reference data, and the commands that apply and verify them."""
