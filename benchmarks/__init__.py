"""Speed measurements that docs/ quotes, each a module that prints its table."""
