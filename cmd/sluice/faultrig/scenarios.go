package main

import "slices"

// scenarios is everything the rig can do to a gateway.
func scenarios() []*scenario {
	return slices.Concat(clientScenarios(), nodeScenarios(), redisScenarios(), lossScenarios(), manyRedisScenarios(), crowdScenarios(), chaosScenarios())
}
