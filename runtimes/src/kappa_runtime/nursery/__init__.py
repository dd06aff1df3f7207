"""The nursery: a small process of embedded mode that has everything a supervisor needs in memory and makes one in a few milliseconds.

``__main__``    its start: loads the supervisor's modules, freezes them, serves
``serving``     the loop: commands from the gateway, deaths of children, the order of ending
``descent``     processes by kinship: subreaper, children of a process, ending a whole line of descent

Who outlives whom:

- The gateway dies (kill -9 included): the nursery reads end of file on its control socket, closes the lifeline, gives supervisors
  a moment and kills what is left, with all descendants.
- The nursery dies: supervisors read end of file on the lifeline. One with a link to a gateway drains (finishes what runs, starts
  nothing more); one without ends at once. The gateway starts a new nursery for what it needs next.
- A supervisor dies: its descendants become children of the nursery (a subreaper), which kills them before it reports the death.
"""
