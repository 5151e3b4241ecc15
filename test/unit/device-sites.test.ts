import { describe } from 'vitest';
import { createMemorySites } from '../../infra/memory/sites.ts';
import { sitesContract } from '../support/sites-contract.ts';

describe('sites of devices in memory', () => sitesContract(async () => createMemorySites()));
