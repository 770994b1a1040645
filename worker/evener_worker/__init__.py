"""What runs on the hosts: the agent, its worker processes, and the runner inside each of them."""
