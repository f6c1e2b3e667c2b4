"""Know the engines that serve models: how they are started, what they take, what they say.

    catalogue    an engine in one version: EngineData, or a refusal
    flagtable    the flags it knows, from `flags/`; `versions` which version an image has
    extraargs    are people's own arguments any good; `managed`: those that are ours to set
    launch       what a replica's engine is started for; `cannot`: what an engine cannot do
    argv         arguments and environment of a seat, by the templates in `render/`
    metricnames  what to read from an engine's /metrics

`readflags` and `reading` make the files in `flags/` from an engine's source; they are for people.

All pure: nothing here starts anything.
"""
