"""What runs beside an agent: it claims lanes, keeps their leases, and is the agent's link to the server."""
