"""What people name to be looked at: files, folders, patterns, lists, data sets, videos."""
