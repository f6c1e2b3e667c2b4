"""Name the smallest changes that would let a gang run, each tried before it is named.

unblock     a gang that has no room: `ways_out`
turns       a gang that has room, but not the turn
whatif      a case, a change of it, and the case after it
ends        gangs that end
rewrites    the gang's own spec, as things are; wording: how such a change reads
growth      blades that the pool has not got
"""
