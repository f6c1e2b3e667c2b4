"""Hold the files that go into the pods of a replica; here only to be packaged and read."""
