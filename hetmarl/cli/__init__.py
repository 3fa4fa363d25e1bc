"""The command ``hetmarl``: one file per subcommand, errors in plain words."""
