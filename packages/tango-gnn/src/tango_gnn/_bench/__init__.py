"""What ``tango-gnn bench`` measures, each part in a process of its own."""
