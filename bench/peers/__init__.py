"""Other servers for the same POST and GET, so that ratios come from one machine and one minute."""
