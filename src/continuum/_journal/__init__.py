"""The journal in Postgres: everything durable goes through here, and only here.

``commit`` has the values, ``protocol`` the interface that the engine knows, ``journal`` its form on Postgres,
``sql`` one statement a file, ``flusher`` the one way in which runs are written. Nothing above this package
imports psycopg.
"""
