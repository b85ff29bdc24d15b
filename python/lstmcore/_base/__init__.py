"""What everything stands on: checks of arguments, parameters, modules, the machine."""
