"""Choose blades for the seats of a gang, exactly: a knapsack over the tree of domains.

    pack        seats that all ask for the same: `choose`
    mixed       slots that ask for different things: `choose_mixed`

and what they are made of:

    field       what may be used and what is wished for, in arrays over a pool's rows
    exact       the cheapest rows there are, or that it would take too long
    knapsack    amounts shared out over the domains of a tree: min-plus convolutions
    vectors     the same for several kinds of seats at once
    greedy      level by level, the fewest domains: when exact would take too long
"""
