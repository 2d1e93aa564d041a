"""A search played through before it is paid for: the policy that decides in a real search, under a virtual clock."""
