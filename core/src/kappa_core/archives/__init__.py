"""Archives of functions and layers: which ones are refused, and how they become read-only trees. For gateways and pods alike.

``paths``    which names and links an archive may contain (pure)
``zips``     reading an archive: what is in it, how big it really is, AWS's refusals
``unpack``   writing archives to a folder
"""
