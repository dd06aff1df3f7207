// Command bootstrap is a Lambda function in Go: it describes a series of numbers.
//
// It uses AWS's own library and knows nothing of Kappa. An empty series is the caller's error and fails the invocation.
package main

import (
	"context"
	"errors"
	"log"
	"math"
	"slices"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// Series is the event.
type Series struct {
	Values []float64 `json:"values"`
}

// Summary is the answer.
type Summary struct {
	Count     int     `json:"count"`
	Mean      float64 `json:"mean"`
	Median    float64 `json:"median"`
	Deviation float64 `json:"deviation"`
}

func summarise(values []float64) (Summary, error) {
	count := len(values)
	if count == 0 {
		return Summary{}, errors.New("the series is empty")
	}
	ordered := slices.Sorted(slices.Values(values))
	sum := 0.0
	for _, value := range values {
		sum += value
	}
	mean := sum / float64(count)
	squares := 0.0
	for _, value := range values {
		squares += (value - mean) * (value - mean)
	}
	median := (ordered[(count-1)/2] + ordered[count/2]) / 2
	return Summary{Count: count, Mean: mean, Median: median, Deviation: math.Sqrt(squares / float64(count))}, nil
}

func handle(ctx context.Context, series Series) (Summary, error) {
	if invocation, ok := lambdacontext.FromContext(ctx); ok {
		log.Printf("%s: %d values", invocation.AwsRequestID, len(series.Values))
	}
	return summarise(series.Values)
}

func main() {
	lambda.Start(handle)
}
