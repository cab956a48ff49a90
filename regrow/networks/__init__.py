"""The networks of the studies. Any other network serves as well."""
