import { describe } from 'vitest';
import { createMemoryAcknowledgements } from '../../infra/memory/acknowledgements.ts';
import { acknowledgementsContract } from '../support/acknowledgements-contract.ts';

describe('acknowledgements in memory', () => acknowledgementsContract(async () => createMemoryAcknowledgements()));
