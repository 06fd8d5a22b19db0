// The sandbox process of every pod: it only waits to be told to stop.
module lifeboat.test/cluster/pause

go 1.26.0
