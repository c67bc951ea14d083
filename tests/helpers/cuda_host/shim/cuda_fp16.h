#pragma once
#include "storage.hpp"
