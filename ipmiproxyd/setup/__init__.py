"""``ipmiproxyctl setup``: makes the machine on which ipmiproxyd is installed one on which it runs, and takes that back.

It knows neither Twisted nor a running daemon's rooms; ``command.py`` is where to begin reading.
"""
