"""Stage deploy: what enough approvers have signed becomes what vehicles install."""
