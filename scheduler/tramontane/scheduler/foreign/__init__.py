"""Place and bind the pods of other controllers that name this scheduler, as gangs.

Pure:

    groups      which group a pod belongs to, and where its size stands
    member      what is kept of such a pod, and what it asks for that is not looked at
    gangs       gangs of such pods, as the engine takes them
    roster      where each pod stands, while two informers catch up

The shell:

    counts      objects of others that say how many pods a group has
    binder      bindings, and words to those who wait
"""
