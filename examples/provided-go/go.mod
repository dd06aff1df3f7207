module kappa.dev/examples/provided-go

go 1.23

require github.com/aws/aws-lambda-go v1.49.0
